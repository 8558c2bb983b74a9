package httpapi

import (
	"net/http"
	"strings"
	"time"

	"runnerhub/shared/catalog"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/fault"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/signin"
)

// login sends the browser to Bitbucket. A browser that is on its way already, in another
// tab, keeps its tie, so that both arrive.
func (a authGroup) login(c *call) (answer, error) {
	browser := c.cookie(a.signInKey)
	if !ourSecret(browser.Reveal()) {
		browser = random.Secret()
	}
	to, err := a.people.Begin(c.Context(), browser, c.query("return"))
	if err != nil {
		return nil, err
	}
	a.setCookie(c, a.signInKey, browser, consent.Life)
	return redirect{to}, nil
}

// ourSecret reports whether s could be of random.Secret.
func ourSecret(s string) bool {
	return len(s) == 52 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// callback is where Bitbucket sends every browser. The state says what it left for.
func (a authGroup) callback(c *call) (answer, error) {
	state := c.query("state")
	switch {
	case consent.PurposeOf(state) == consent.SignIn:
		return a.signedIn(c, secret.New(state))
	case consent.PurposeOf(state) == consent.Connect:
		return a.connected(c, secret.New(state))
	default:
		return nil, fault.New(fault.Invalid, "nothing was begun that would end here: start with signing in")
	}
}

func (a authGroup) signedIn(c *call, state secret.Text) (answer, error) {
	session, err := a.people.Finish(c.Context(), signin.Return{
		State: state, Code: secret.New(c.query("code")), Error: c.query("error"),
		Browser: c.cookie(a.signInKey), Old: a.sessionOf(c),
	})
	if err != nil {
		return nil, err
	}
	if !session.Secret.Empty() {
		a.setCookie(c, a.cookieKey, session.Secret, session.ExpiresAt.Sub(a.Now()))
	}
	return redirect{session.Return}, nil
}

func (a authGroup) connected(c *call, state secret.Text) (answer, error) {
	if err := a.authenticate(c); err != nil {
		return nil, err
	}
	outcome, err := a.connections.Finish(c.Context(), browserOf(c), connect.Return{
		State: state, Code: secret.New(c.query("code")), Error: c.query("error"),
	})
	if err != nil {
		return nil, err
	}
	if q := outcome.Question; q != nil {
		c.status = http.StatusOK
		return page{confirmPage(newView(c, "Another Bitbucket account"), c.who.User.Nickname, *q)}, nil
	}
	return redirect{outcome.Return}, nil
}

// confirm takes the form of the page that asks whether another account is meant. The
// ticket in it is known to that page alone, which guards it from other sites.
func (a authGroup) confirm(c *call) (answer, error) {
	c.Body = http.MaxBytesReader(c.w, c.Body, 1<<14)
	if err := c.ParseForm(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "this is not the form of the page")
	}
	to, err := a.connections.Answer(c.Context(), browserOf(c), secret.New(c.PostForm.Get("ticket")), c.PostForm.Get("answer") == "yes")
	if err != nil {
		return nil, err
	}
	return redirect{to}, nil
}

func (a authGroup) logout(c *call) (answer, error) {
	if err := a.people.SignOut(c.Context(), a.sessionOf(c)); err != nil {
		return nil, err
	}
	a.setCookie(c, a.cookieKey, secret.Text{}, 0)
	return nothing{}, nil
}

func (a authGroup) me(c *call) (answer, error) { return reply(c.who.User, nil) }

func (a authGroup) tokens(c *call) (answer, error) {
	return replyList(a.people.Tokens(c.Context(), c.who, c.query("cursor")))
}

func (a authGroup) createToken(c *call) (answer, error) {
	var in struct {
		Name      string    `json:"name"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name, err := catalog.Name(in.Name)
	if err != nil {
		return nil, err
	}
	return reply(a.people.CreateToken(c.Context(), c.who, name, in.ExpiresAt))
}

func (a authGroup) deleteToken(c *call) (answer, error) {
	return nothing{}, a.people.DeleteToken(c.Context(), c.who, c.PathValue("token"))
}

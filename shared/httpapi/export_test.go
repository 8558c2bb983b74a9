package httpapi

// Route is a line of the table, for the tests that compare it.
type Route struct {
	Method, Path string
	Public       bool
	Status       int
}

// Routes answers the table.
func (a *API) Routes() []Route {
	var out []Route
	for _, r := range a.table() {
		path := r.path
		if path == "/{$}" {
			path = "/"
		}
		out = append(out, Route{r.method, path, r.guard == public || r.guard == known, r.status})
	}
	return out
}

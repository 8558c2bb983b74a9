package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

// Pipelines is the rules of the pipeline files that an app holds, on any table.
func Pipelines(t *testing.T, open func(testing.TB) *Bench) {
	for name, rule := range map[string]func(*shelf){
		"each change is a version":         everyVersion,
		"what is expected has to be there": expectedVersion,
		"the same file at once":            sameFileAtOnce,
		"different files at once":          filesAtOnce,
		"no more than the most":            mostFiles,
		"answers get lost":                 lostChanges,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &shelf{t, open(t)}
			rule(s)
			s.agrees()
		})
	}
}

// shelf is where an app's files stand.
type shelf struct {
	*testing.T
	*Bench
}

// change stores a text for branches, or ends the file where the text is empty.
func (s *shelf) change(branches, text, who string, expected int) (store.Pipeline, error) {
	p := store.Pipeline{ID: "id of " + branches, Branches: branches, Deleted: text == "", ChangedBy: who, ChangedAt: s.Clock.Now().UTC()}
	return s.ChangePipeline(s.Context(), "app", p, expected, text)
}

// changed is change that has to succeed, as a version.
func (s *shelf) changed(branches, text, who string, expected, version int) store.Pipeline {
	s.Helper()
	s.Clock.Add(time.Second)
	p, err := s.change(branches, text, who, expected)
	if err != nil || p.Version != version || p.ChangedBy != who || !p.ChangedAt.Equal(s.Clock.Now()) {
		s.Fatalf("%s: %+v, %v; want version %d", branches, p, err, version)
	}
	return p
}

// versions answers all versions, the first one first.
func (s *shelf) versions() (all []store.Pipeline) {
	s.Helper()
	cursor := ""
	for {
		page, err := s.PipelineVersions(s.Context(), "app", cursor)
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, page.Items...)
		if cursor = page.Cursor; cursor == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// agrees checks that no version is missing, that each but a deletion has its text, and that what the app holds
// is the last version of each file.
func (s *shelf) agrees() {
	s.Helper()
	last := map[string]store.Pipeline{}
	for i, p := range s.versions() {
		one, text, err := s.PipelineVersion(s.Context(), "app", p.Version)
		if p.Version != i+1 || err != nil || one != p || (text == "") != p.Deleted || p.ChangedBy == "" || p.ChangedAt.IsZero() {
			s.Errorf("version %d of the list is %+v; by itself %+v with %q, %v", i+1, p, one, text, err)
		}
		if last[p.ID] = p; p.Deleted {
			delete(last, p.ID)
		}
	}
	held, err := s.Bench.Pipelines(s.Context(), "app")
	if err != nil || len(held) != len(last) {
		s.Errorf("held are %+v, %v; the versions say %+v", held, err, last)
	}
	for _, p := range held {
		if last[p.ID] != p {
			s.Errorf("held is %+v, the last version is %+v", p, last[p.ID])
		}
	}
}

func everyVersion(s *shelf) {
	s.changed("**", "one", "ann", 0, 1)
	s.changed("main", "two", "bob", 0, 2)
	s.changed("**", "three", "bob", 1, 3)
	s.changed("main", "", "ann", 2, 4)
	s.changed("main", "five", "ann", 0, 5)
	s.agrees()
	for version, want := range map[int]string{1: "one", 3: "three", 4: "", 5: "five"} {
		if _, text, err := s.PipelineVersion(s.Context(), "app", version); err != nil || text != want {
			s.Errorf("version %d is %q, %v", version, text, err)
		}
	}
	if _, _, err := s.PipelineVersion(s.Context(), "app", 6); !fault.Is(err, fault.NotFound) {
		s.Errorf("a version that there is not: %v", err)
	}
	if held, err := s.Bench.Pipelines(s.Context(), "another"); err != nil || len(held) != 0 {
		s.Errorf("another app holds %v, %v", held, err)
	}
	last := 3
	for i := range 60 { // more than a page of versions
		last = s.changed("**", fmt.Sprint(i), "ann", last, 6+i).Version
	}
}

func expectedVersion(s *shelf) {
	s.changed("**", "one", "ann", 0, 1)
	s.changed("**", "two", "ann", 1, 2)
	for expected, text := range map[int]string{0: "x", 1: "x", 3: "x", -1: ""} {
		if p, err := s.change("**", text, "bob", expected); !fault.Is(err, fault.Conflict) {
			s.Errorf("in the place of version %d: %+v, %v", expected, p, err)
		}
	}
	if _, err := s.change("main", "x", "bob", 2); !fault.Is(err, fault.Conflict) {
		s.Errorf("in the place of another file: %v", err)
	}
	if _, err := s.change("main", "", "bob", 0); !fault.Is(err, fault.NotFound) {
		s.Errorf("the end of what there is not: %v", err)
	}
	if n := len(s.versions()); n != 2 {
		s.Errorf("%d versions", n)
	}
}

// Of many who replace one version at once, one does, and the others are told.
func sameFileAtOnce(s *shelf) {
	s.changed("**", "one", "ann", 0, 1)
	for round := range 3 {
		var all sync.WaitGroup
		var mu sync.Mutex
		won := map[string]store.Pipeline{}
		for i := range 8 {
			all.Go(func() {
				who := fmt.Sprint("user", i)
				p, err := s.change("**", who, who, 1+round)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won[who] = p
				} else if !fault.Is(err, fault.Conflict) {
					s.Error(err)
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			s.Fatalf("%d were first: %+v", len(won), won)
		}
		for who, p := range won {
			if one, text, err := s.PipelineVersion(s.Context(), "app", 2+round); err != nil || one != p || text != who || p.ChangedBy != who {
				s.Errorf("%s was told %+v, stored is %+v, %q, %v", who, p, one, text, err)
			}
		}
	}
}

// Who changes different files at once does not come in the way of the others, and no version gets lost.
func filesAtOnce(s *shelf) {
	const files, each = 4, 3
	var all sync.WaitGroup
	for i := range files {
		all.Go(func() {
			branches, expected := fmt.Sprint("branch", i), 0
			for n := range each {
				p, err := s.change(branches, fmt.Sprint(n), branches, expected)
				if err != nil {
					s.Errorf("%s: %v", branches, err)
					return
				}
				expected = p.Version
			}
		})
	}
	all.Wait()
	if n := len(s.versions()); n != files*each {
		s.Errorf("%d versions", n)
	}
}

func mostFiles(s *shelf) {
	for i := range store.MaxPipelines {
		s.changed(fmt.Sprint("branch", i), "x", "ann", 0, i+1)
	}
	if _, err := s.change("one more", "x", "ann", 0); !fault.Is(err, fault.Conflict) {
		s.Errorf("one more: %v", err)
	}
	s.changed("branch7", "", "ann", 8, store.MaxPipelines+1)
	s.changed("one more", "x", "ann", 0, store.MaxPipelines+2)
}

// A change whose answer gets lost is made once.
func lostChanges(s *shelf) {
	s.Table.OnTransact(func(n int, _ []table.Write, do func() error) error {
		if err := do(); err != nil || n%2 == 0 {
			return err
		}
		return fault.New(fault.Unknown, "the answer was lost")
	})
	s.changed("**", "one", "ann", 0, 1)
	s.changed("**", "two", "ann", 1, 2)
	s.changed("main", "x", "ann", 0, 3)
	s.changed("main", "", "ann", 3, 4)
}

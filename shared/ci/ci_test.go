package ci

import "testing"

func TestStatesOnlyMoveForward(t *testing.T) {
	t.Parallel()
	order := map[State]int{Queued: 0, Starting: 1, Running: 2, Successful: 3, Failed: 3, Stopped: 3, TimedOut: 3, Errored: 3}
	for from, i := range order {
		for to, j := range order {
			if got, want := from.May(to), i < j; got != want {
				t.Errorf("%s → %s allowed: %v, want %v", from, to, got, want)
			}
		}
		if from.Final() != (i == 3) {
			t.Errorf("%s.Final() = %v", from, from.Final())
		}
		if (from.Status() == StatusInProgress) == from.Final() {
			t.Errorf("%s is shown as %s", from, from.Status())
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	table := map[Permission][4]bool{ // OWNER, ADMIN, MEMBER, VIEWER
		See:             {true, true, true, true},
		RunBuilds:       {true, true, true, false},
		Configure:       {true, true, false, false},
		Manage:          {true, true, false, false},
		DeleteWorkspace: {true, false, false, false},
	}
	for permission, row := range table {
		for i, role := range []Role{Owner, Admin, Editor, Viewer} {
			if got := role.Allows(permission); got != row[i] {
				t.Errorf("%s may %s: %v", role, permission, got)
			}
		}
		if Role("").Allows(permission) || Role("owner").Allows(permission) {
			t.Errorf("an unknown role may %s", permission)
		}
	}
}

// Package store is what is persisted, and its guarantees: which items change
// together, under which conditions, and what is read again when an outcome was
// not learned. It stands over package table and holds the complete key schema;
// it decides nothing about pushes, builds or users.
//
// # Keys
//
// One table. Times in keys are UTC with a fixed number of digits, so that they
// sort; numbers are padded. "→" is what the item holds; an item without one is
// its own record. Every index is an item written in the transaction that
// writes its record.
//
//	partition                       sort                         item
//	INSTALLATION                    OWNER                        the user who owns the installation
//	INSTALLATION                    WORKSPACE                    → the one workspace where builds are not isolated
//	INSTALLATION                    ALLOWED#{slug}               → the one Bitbucket workspace an allowed slug stands for
//	ACCOUNT#{bitbucket uuid}        USER                         → user id
//	USER#{user}                     USER                         a person
//	USER#{user}                     WORKSPACE#{workspace}        → membership, role (the workspaces of a user)
//	USER#{user}                     TOKEN#{token}                a personal API token without its secret
//	SESSION#{sha256}                SESSION                      a browser session, expires
//	TOKEN#{sha256}                  TOKEN                        → user, token id
//	OAUTH#{sha256}                  STATE                        an OAuth state, single use, expires
//	WORKSPACE#{workspace}           WORKSPACE                    a workspace
//	WORKSPACE#{workspace}           MEMBER#{user}                membership, role
//	WORKSPACE#{workspace}           APP#{app}                    → app
//	WORKSPACE#{workspace}           CONNECTION#{connection}      → connection
//	WORKSPACE#{workspace}           VARIABLE#{name}              a variable of the workspace, sealed
//	CONNECTION#{connection}         CONNECTION                   a connection
//	CONNECTION#{connection}         TOKEN                        its sealed tokens, and the lease of the one who renews them
//	CONNECTION#{connection}         APP#{app}                    → an app that uses it
//	APP#{app}                       APP                          an app
//	APP#{app}                       REPOSITORY                   its tie to a repository
//	APP#{app}                       HOOK#{bitbucket uuid}        → hook, for the app's events of a repository
//	APP#{app}                       LEFT#{bitbucket uuid}        a repository it was tied to, which may still have its webhook
//	APP#{app}                       PULL#{bitbucket uuid}#{number}  the state of a pull request that was decided last, or was found when the app was tied
//	APP#{app}                       COUNTER                      the number of its last build
//	APP#{app}                       BUILD#{number, 10 digits}    → build (newest first by reading backwards)
//	APP#{app}                       DELIVERY#{time}#{delivery}   → delivery
//	APP#{app}                       PIPELINES                    the pipeline files it holds, without their texts
//	APP#{app}                       PIPELINE#{version}           a version of one: for which branches, by whom, when
//	APP#{app}                       PIPELINETEXT#{version}       its text
//	APP#{app}                       SCHEDULE#{schedule}          a schedule
//	APP#{app}                       VARIABLE#{name}              a variable, sealed
//	REPOSITORY#{bitbucket uuid}     APP#{app}                    → an app that builds it
//	HOOK#{hook}                     HOOK                         a hook address: app, workspace, sealed secret
//	DELIVERY#{delivery}             DELIVERY                     a verified delivery: event and decisions
//	SCHEDULE#{schedule}             SCHEDULE                     → app
//	CHANGE#{app}                    {sha256 of the change}       → the build of a change
//	CHANGE#{app}                    {sha256 of the state}        → the newest build of what a branch or tag was at, by a push or for a pull request
//	GROUP#{app}                     {sha256 of the group}#{0, if it stops others, or 1}#{number, 10 digits}  → a build of the group that has not ended
//	TURN#{app}                      {sha256 of the group}#0      the build of the group whose turn it is
//	TURN#{app}                      {sha256 of the group}#1#{place}  → a build that waits for its turn
//	BUILD#{build}                   BUILD                        a build
//	BUILD#{build}                   SCRIPT                       what its runner executes
//	TICKET#{sha256}                 TICKET                       → build, attempt; gone when the build ends
//	HELD#{app}                      {pull request, 10 digits}#{build}   a build that waits for an approval → its id
//	WAITING#{runner}                {workspace}#{time}#{build}   a build waiting for admission
//	SLOTS#{runner}                  SLOTS                        the builds admitted, with their workspaces
//	STATUS#{repository}#{commit}    {status key}                 what a commit's status has to say, and what it says
//	DUE#{kind}#{shard}              {time}#{reference}           something the sweep or the refresh looks at then
//
// The timers of the standalone server keep what they publish in the same table, under
// TIMETABLE, and beside this schema: see package timers.
//
// # Rules
//
//   - A record is changed by reading it, editing it and writing it under its
//     version. Every change is written so that it may be applied to a state that
//     has it already: a lost race and an outcome not learned (fault.Unknown) both
//     mean reading again and starting over.
//   - Of the builds of a group that run one after the other, one has the turn: it alone is in the line before its runner, or
//     holds a slot. When it ends, the same transaction makes it the turn of the next.
//   - A change has one build. Another one takes its place only when it was set aside (Build.SetAside) or never ran (Build.NeverRan), under the
//     condition that it still is so, and still speaks for the change and the state: so of those of which something ran there is one at most.
//   - States of builds move by ci.State.May alone. What hangs on a state (slot,
//     ticket, waiting, status, due) moves in the same transaction.
//   - What may be written over without harm (sessions, tokens and states under
//     random names, hooks) is written without a condition, and again when the
//     outcome was not learned. Taking an OAuth state is the one exception to both: a
//     doubt about it is a refusal.
//   - ExpiresAt of sessions, tokens and OAuth states is compared with the clock on
//     reading; that the table removes them is housekeeping. Tickets have none: they
//     are deleted with the attempt they belong to.
package store

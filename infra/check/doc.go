// Package check holds the source tree to the rules that no compiler knows: which
// package may import which, what stands at package level, what every exported name
// has, and that the documents agree with the code. It consists of tests and has
// nothing to import. It judges the files as they are; what the program does is for
// the tests of the packages.
package check

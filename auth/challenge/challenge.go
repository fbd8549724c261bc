// Package challenge owns challenges: what is still owed before a session begins or
// changes its level.
package challenge

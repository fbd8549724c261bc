// Package policy owns what the schema says of a method beyond its messages: who may
// call it, for how long, how often, what may be cached, retried, normalized and logged.
//
// [Compile] reads the options of proto/policy/v1, reports every contradiction, and
// tightens time limits and rates by settings. The resulting [Method] does not change.
package policy

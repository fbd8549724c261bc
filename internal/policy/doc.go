// Package policy owns the policies that the schema declares for a method: access, time
// limit, rate, caching, retries, normalization and redaction.
//
// [Compile] reads the options of proto/policy/v1, reports every contradiction, and
// tightens time limits and rates by settings. The resulting [Method] does not change.
package policy

// Package limit holds callers to rates, and a server to what it can do.
//
// A rate is kept by the generic cell rate algorithm (ITU-T I.371): of each
// caller one time is kept, that at which nothing of what they had would be used
// up any more. [Local] keeps them in this process, within a bound; [Rates] has
// several processes share them through Redis or Valkey, and goes on with its own
// while that gives no answer.
//
// [Adaptive] lets as many calls run at a time as can without waiting for each
// other, which it learns from how long they take.
package limit

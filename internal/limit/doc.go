// Package limit holds callers to rates, and a server to what it can do.
//
// A rate is kept by the generic cell rate algorithm (ITU-T I.371): of each
// caller one time is kept, that at which nothing of what they had would be used
// up any more. [Local] keeps them in this process, within a bound; [Rates] has
// several processes share them through Redis or Valkey, and goes on with its own
// while that gives no answer.
//
// [Queue] bounds how many calls run at a time and queues the others. It refuses
// calls only while they stand in a queue that doesn't go away.
package limit

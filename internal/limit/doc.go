// Package limit limits the request rates of callers, and the number of calls that a
// server runs at the same time.
//
// Rates use the generic cell rate algorithm (ITU-T I.371), which stores one time for
// each caller: the time at which the caller's whole burst is available again. [Local]
// stores the times in this process, for a bounded number of callers. [Rates] shares
// them between processes through Redis or Valkey, and falls back to a Local while the
// server does not answer.
//
// [Queue] is a concurrency limit with a queue. It refuses calls only during a standing
// queue.
package limit

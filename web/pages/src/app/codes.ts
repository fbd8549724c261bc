// Codes of Connect that the pages tell apart. The compiler compares them with its Code, and the
// bundler inlines them.
import type { Code } from "@connectrpc/connect";

export const deadlineExceeded: Code.DeadlineExceeded = 4;
export const resourceExhausted: Code.ResourceExhausted = 8;
export const unavailable: Code.Unavailable = 14;
export const unauthenticated: Code.Unauthenticated = 16;

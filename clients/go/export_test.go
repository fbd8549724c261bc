package gatehouse

// Keyed are the methods that take an Idempotency-Key.
var Keyed = keyed

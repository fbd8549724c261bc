package gatehouse

// Keyed are the methods that take an Idempotency-Key.
var Keyed = keyed

// NextTokens returns the next tokens of the caller's own session in a response.
var NextTokens = nextTokens

// VerifyWebhookAt is VerifyWebhook at another time.
var VerifyWebhookAt = verifyWebhook

package gatehouse

// Version is the version of this client, and of the Gatehouse that it was released with.
// Older and newer ones work together as long as the first number is the same.
const Version = "1.0.0"

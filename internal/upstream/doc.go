// Package upstream reads what the operator says of upstreams: services of the
// application, in any language, that stand behind the gateway.
//
// [Load] reads the YAML file (file.go), each upstream's descriptor set
// (descriptors.go) and the policies that the file adds to it (policy.go), and reports
// every mistake at once, with its line and how to fix it. A method is published if its
// proto or the file says who may call it. The descriptors of a [Set] hold the published
// methods and nothing that only other methods need (prune.go), so that whatever is
// derived from them, such as reflection or documents, shows nothing else.
//
// Descriptors are pinned in a file, because an upstream must not be able to widen its
// own policy. [Fetch] reads them by gRPC reflection, for a file that a person then
// reviews, and for development.
package upstream

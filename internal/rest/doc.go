// Package rest serves the methods of an RPC server at REST paths.
//
// A method whose schema has a google.api.http rule is served at that path.
// vanguard finds the method and builds its message from path, query and body; the
// call then goes through the mux as a Connect call in JSON, so that the same chain
// applies. The response is Connect's, errors included, except for the status: 201
// with Location or 202 for what was created, and 204 without a body for DELETE.
package rest

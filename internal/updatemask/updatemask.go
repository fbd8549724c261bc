// Package updatemask declares which fields of a user an update mask may name, and the
// error for any other mask. The gateway and users refuse the same masks: the gateway
// before it asks a service, users for every caller.
package updatemask

import (
	"fmt"

	"gatehouse/internal/fault"
)

const (
	fields = "first_name, last_name, locale, attributes and app_attributes"
	reason = "UPDATE_MASK_INVALID"
)

// ErrEmpty refuses an update that changes no field.
var ErrEmpty = fault.Invalid(reason, "update_mask", "names no field to change: name at least one of "+fields+", or give one of them a value")

// ErrField refuses a mask with a path that can't be changed.
func ErrField(path string) error {
	return fault.Invalid(reason, "update_mask", fmt.Sprintf("%.64q can't be changed: name only "+fields, path))
}

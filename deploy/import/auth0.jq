# Accounts of Auth0 as JSON lines for gatehouse admin import: the export of users, and in
# $hashes the export of password hashes that Auth0's support makes. Both are JSON lines.
(INDEX($hashes[]; "auth0|" + ._id["$oid"])) as $by_id
| inputs
| select(.email)
| {
    email,
    email_verified: (.email_verified // false),
    first_name: (.given_name // ""),
    last_name: (.family_name // ""),
    status: (if .blocked then "disabled" else "active" end)
  }
  + (($by_id[.user_id].passwordHash // null) | if . then {password_hash: .} else {} end)

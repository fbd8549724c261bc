# Accounts of Firebase Authentication (firebase auth:export users.json --format=json) as JSON
# lines for gatehouse admin import. The arguments are the hash parameters of the project.
def base64: gsub("-"; "+") | gsub("_"; "/");

.users[]
| select(.email)
| {
    email,
    email_verified: (.emailVerified // false),
    first_name: ((.displayName // "") | split(" ") | .[0] // ""),
    last_name: ((.displayName // "") | split(" ") | .[1:] | join(" ")),
    status: (if .disabled then "disabled" else "active" end)
  }
  + if .passwordHash and .salt then
      {password_hash: "$fbscrypt$v=1,n=\($mem_cost),r=\($rounds),p=1,ss=\($separator | base64),sk=\($key | base64)$\(.salt | base64)$\(.passwordHash | base64)"}
    else {} end

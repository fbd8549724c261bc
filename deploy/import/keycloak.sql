-- Accounts of a realm of Keycloak as JSON lines for gatehouse admin import, with hashes by
-- PBKDF2 and Argon2. The realm is the variable of psql of that name.
SELECT json_strip_nulls(json_build_object(
    'id', u.id,
    'email', u.email,
    'email_verified', u.email_verified,
    'password_hash', CASE
        WHEN c.data->>'algorithm' LIKE 'pbkdf2%' THEN
            '$' || (c.data->>'algorithm') || '$i=' || (c.data->>'hashIterations') || '$' || c.salt || '$' || c.hash
        WHEN c.data->>'algorithm' = 'argon2' THEN
            '$argon2' || (c.data->'additionalParameters'->'type'->>0) || '$v=19$m=' || (c.data->'additionalParameters'->'memory'->>0)
            || ',t=' || (c.data->>'hashIterations') || ',p=' || (c.data->'additionalParameters'->'parallelism'->>0) || '$' || c.salt || '$' || c.hash
        END,
    'first_name', u.first_name,
    'last_name', u.last_name,
    'locale', (SELECT value FROM user_attribute a WHERE a.user_id = u.id AND a.name = 'locale' LIMIT 1),
    'status', CASE WHEN u.enabled THEN 'active' ELSE 'disabled' END))
FROM user_entity u
JOIN realm r ON r.id = u.realm_id AND r.name = :'realm'
LEFT JOIN LATERAL (
    SELECT credential_data::json AS data,
        rtrim(secret_data::json->>'salt', '=') AS salt,
        rtrim(secret_data::json->>'value', '=') AS hash
    FROM credential
    WHERE user_id = u.id AND type = 'password'
    ORDER BY priority LIMIT 1
) c ON true
WHERE u.email <> '' AND u.service_account_client_link IS NULL
ORDER BY u.created_timestamp;

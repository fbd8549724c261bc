-- The columns of Devise's users that the export reads, with the module confirmable.
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY, email varchar NOT NULL DEFAULT '', encrypted_password varchar NOT NULL DEFAULT '', confirmed_at timestamp,
    first_name varchar);
INSERT INTO users (email, encrypted_password, confirmed_at, first_name) VALUES
    ('bcrypt@devise.example', '$2a$12$9ZBXqeOCrlNCDOE6sT6pA.D3n2VHfJkaZm7YfmeP6NFvkUDMhBYBG', now(), 'Ada'), ('invited@devise.example', '', NULL, NULL);

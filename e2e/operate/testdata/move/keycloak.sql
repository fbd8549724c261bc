-- The columns of Keycloak's tables that the export reads.
CREATE TABLE realm (id varchar(36) NOT NULL, name varchar(255));
CREATE TABLE user_entity (
    id varchar(36) NOT NULL, email varchar(255), email_verified boolean NOT NULL, first_name varchar(255), last_name varchar(255),
    enabled boolean NOT NULL, realm_id varchar(255), service_account_client_link varchar(255), created_timestamp bigint);
CREATE TABLE user_attribute (id varchar(36) NOT NULL, name varchar(255) NOT NULL, value varchar(255), user_id varchar(36) NOT NULL);
CREATE TABLE credential (
    id varchar(36) NOT NULL, type varchar(255), user_id varchar(36), secret_data text, credential_data text, priority integer);
INSERT INTO realm VALUES ('r1', 'myrealm'), ('r2', 'master');
INSERT INTO user_entity VALUES
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0001', 'argon2@keycloak.example', true, 'Ada', 'Lovelace', true, 'r1', NULL, 1700000000001),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0002', 'sha256@keycloak.example', true, 'Grace', 'Lovelace', true, 'r1', NULL, 1700000000002),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0003', 'sha512@keycloak.example', true, 'Joan', 'Lovelace', true, 'r1', NULL, 1700000000003),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0004', 'disabled@keycloak.example', true, 'Mary', 'Lovelace', false, 'r1', NULL, 1700000000004),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0005', 'federated@keycloak.example', true, 'Edith', 'Lovelace', true, 'r1', NULL, 1700000000005),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0006', 'left-out@keycloak.example', true, 'Other', 'Lovelace', true, 'r2', NULL, 1700000000006),
    ('6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0007', 'left-out-service@keycloak.example', true, 'Service', 'Lovelace', true, 'r1', 'client', 1700000000007);
INSERT INTO user_attribute VALUES ('a1', 'locale', 'de', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0001');
INSERT INTO credential VALUES
    ('c1', 'password', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0001', '{"value": "GdF0FN4g/zOEmBQw9z+zR3FQRsyPIay9UgUNQl1aP38=", "salt": "uSNpGRhz55qeD72jimDIRA==", "additionalParameters": {}}', '{"hashIterations": 5, "algorithm": "argon2", "additionalParameters": {"hashLength": ["32"], "memory": ["7168"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}}', 10),
    ('c2', 'password', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0002', '{"value": "7+JwmIvnxHXbdSRhm2vNPT2b+GywtemkagUgoeptoC8qOiDH/fugXo3lgnQScnveeK9dhQlqoA0dBgZjtJWpUA==", "salt": "QbRww/R0lkHG0OUXErbz5A==", "additionalParameters": {}}', '{"hashIterations": 27500, "algorithm": "pbkdf2-sha256", "additionalParameters": {}}', 10),
    ('c3', 'password', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0003', '{"value": "EZUhXlA2/JRt/FBpBFKMESaofze6RgCSYoLDWttIHkuH3cHN9hor5tuHWqhhvMYDvkkw3RPIIpPBm/Uajg4i7w==", "salt": "7mUIYnJy3UTnGIYPt4xJPA==", "additionalParameters": {}}', '{"hashIterations": 210000, "algorithm": "pbkdf2-sha512", "additionalParameters": {}}', 10),
    ('c4', 'password', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0004', '{"value": "j/GVATjW2gr8iDa5o3kH1lBVDGs0aSoYZvB+GOLRZmT3pyAw5Ijv8xK9uwVJHdIH6flNZIruQDYD6EzzjJL2KA==", "salt": "feOKNYyaUcsmBGtYpbZgoA==", "additionalParameters": {}}', '{"hashIterations": 27500, "algorithm": "pbkdf2-sha256", "additionalParameters": {}}', 10),
    ('c6', 'password', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0006', '{"value": "L3xQCDVzLTpZtaCleqGGt65FDR4kAlBSsFbn3PNdW3TN8dtdgKa9mlYRRoTSalegkdq3jpdEWFMWPKJNdwWOWA==", "salt": "MpsqHefD0CqXIIuITuwu4w==", "additionalParameters": {}}', '{"hashIterations": 27500, "algorithm": "pbkdf2-sha256", "additionalParameters": {}}', 10),
    ('c9', 'otp', '6e1d2c90-0f1c-4d52-8f70-0d3c5b7a0001', '{"value":"secret"}', '{"subType":"totp"}', 20);

/**
 * The application's own services: make service adds a line for each, and the client then
 * has a property of its name.
 */
export const services = {
} as const;

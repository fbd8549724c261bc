// Redoc over this gateway's own description.
"use strict";

const font = "system-ui, sans-serif"; // those that it names by itself are nowhere here

Redoc.init("/openapi.json", {
  theme: { typography: { fontFamily: font, headings: { fontFamily: font } } },
}, document.getElementById("redoc"));

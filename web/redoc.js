// Redoc of this gateway's API.
"use strict";

const font = "system-ui, sans-serif"; // Redoc's own fonts are not served here

Redoc.init("/openapi.json", {
  theme: { typography: { fontFamily: font, headings: { fontFamily: font } } },
}, document.getElementById("redoc"));

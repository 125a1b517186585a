// Starts Swagger UI. A file of its own, because the Content-Security-Policy allows no inline script.
"use strict";

// Swagger UI is dark where the document's element has this class.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "../openapi.json",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  syntaxHighlight: { theme: "tomorrow-night" }, // the default's numbers are too faint
  tryItOutEnabled: true,
});

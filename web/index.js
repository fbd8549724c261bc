// Polls the status of the services while the page is visible.
"use strict";

const interval = 2000;

function show(part, state) {
  const row = document.querySelector(`#parts [data-part="${CSS.escape(part)}"]`);
  const cell = row?.cells[1];
  if (!cell || cell.dataset.state === state) return; // so that screen readers announce changes only
  cell.dataset.state = state;
  cell.textContent = state;
}

async function poll() {
  try {
    const response = await fetch("/status.json", { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(response.statusText);
    const { parts } = await response.json();
    for (const { name, well } of parts) show(name, well ? "healthy" : "unreachable");
  } catch {
    // Without the gateway the others' status is unknown.
    for (const row of document.querySelectorAll("#parts [data-part]")) {
      show(row.dataset.part, row.dataset.part === "gateway" ? "unreachable" : "unknown");
    }
  }
}

async function pollForever() {
  for (;;) {
    if (!document.hidden) await poll();
    await new Promise(resolve => setTimeout(resolve, interval));
  }
}

pollForever();

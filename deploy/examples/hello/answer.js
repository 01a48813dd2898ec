// Asks for this page's head every two seconds and shows who answered.
const places = document.querySelectorAll("[data-answer]");

async function ask() {
  const response = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
  for (const place of places) {
    place.textContent = response.headers.get(place.dataset.answer) ?? "not said";
  }
}

function again() {
  // A failed request is shown as silence, not as an error: the next one may go through.
  ask().catch(() => {}).finally(() => setTimeout(again, 2000));
}

again();

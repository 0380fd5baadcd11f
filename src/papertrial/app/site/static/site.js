// What htmx brings may hold figures: they are drawn once it is in its place.
document.addEventListener("htmx:afterSettle", () => document.dispatchEvent(new Event("figures")));

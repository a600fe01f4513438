/* Runs before the first paint, so that a chosen theme never flashes. */
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("fieldmark-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (error) { /* storage may be forbidden for local files */ }
  document.documentElement.classList.add("js");
})();

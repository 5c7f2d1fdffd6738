(function () {
  "use strict";
  var button = document.getElementById("unfold");
  var all = function () { return document.querySelectorAll("details"); };
  var readings = function () { return document.querySelectorAll("details.reading"); };
  button.hidden = false;
  button.addEventListener("click", function () {
    var open = button.getAttribute("aria-pressed") !== "true";
    readings().forEach(function (one) { one.open = open; });
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Fold all dialogues" : "Unfold all dialogues";
  });
  window.addEventListener("beforeprint", function () {
    all().forEach(function (one) { one.open = true; });
  });
})();

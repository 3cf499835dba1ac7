// What the pages do beyond links and forms. Without it everything can still be read.
"use strict";

(function () {
  const rows = () => Array.from(document.querySelectorAll("main table.rows tbody a.id"));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      document.getElementById("q").focus();
      return;
    }
    const box = event.target.id === "q";
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (!typing || box)) {
      const links = rows();
      if (!links.length) return;
      const here = links.indexOf(document.activeElement);
      const next = event.key === "ArrowDown" ? here + 1 : here - 1;
      if (next < 0) document.getElementById("q").focus();
      else links[Math.min(next, links.length - 1)].focus();
      event.preventDefault();
    }
  });

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function clock(seconds) {
    return new Date(seconds * 1000).toISOString().slice(11, 16);
  }

  function draw(figure) {
    const minutes = JSON.parse(figure.querySelector("script").textContent);
    if (!minutes.length || typeof uPlot === "undefined") return;
    const at = minutes.map((minute) => Date.parse(minute.at) / 1000);
    const line = (label, key, name) => ({ label, stroke: color(name), width: 2, points: { show: minutes.length < 20 } });
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const chart = new uPlot(
      {
        width: figure.clientWidth || 600,
        height: 200,
        series: [
          { label: "minute", value: (_, seconds) => (seconds === null ? "" : clock(seconds)) },
          line("began", "began", "--bar-initiated"),
          line("processed", "processed", "--bar-processed"),
          line("failed", "failed", "--bar-failed"),
        ],
        axes: [{ ...axis, values: (_, ticks) => ticks.map(clock) }, axis],
      },
      [at, minutes.map((m) => m.began), minutes.map((m) => m.processed), minutes.map((m) => m.failed)],
      figure
    );
    chart.over.addEventListener("click", () => {
      const index = chart.cursor.idx;
      if (index === null || index === undefined) return;
      const begin = new Date(at[index] * 1000), end = new Date((at[index] + 60) * 1000);
      const iso = (moment) => moment.toISOString().replace(".000Z", "Z");
      location.assign("/search?since=" + encodeURIComponent(iso(begin)) + "&until=" + encodeURIComponent(iso(end)));
    });
  }

  // What is there at first, and what each event brings.
  document.addEventListener("htmx:load", (event) => {
    event.detail.elt.parentElement.querySelectorAll("[data-chart]:not([data-drawn])").forEach((figure) => {
      figure.dataset.drawn = "";
      draw(figure);
    });
  });
})();

/* Draws the dashboard's charts from the figures beside them; without it, its tables remain. */
"use strict";
(() => {
  const canvases = [...document.querySelectorAll("canvas[data-figures]")];
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--dashboard-${name}`).trim();

  const draw = (canvas) => {
    const figures = JSON.parse(document.getElementById(canvas.dataset.figures).textContent);
    const axis = { border: { color: colour("grid") }, ticks: { color: colour("text") } };
    return new Chart(canvas, {
      type: "bar",
      data: {
        labels: figures.labels,
        datasets: figures.series.map((series) => ({
          label: series.name,
          data: series.values,
          backgroundColor: colour(series.tone),
          hoverBackgroundColor: colour(series.tone),
          maxBarThickness: 28,
        })),
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: {
          legend: { display: figures.series.length > 1, labels: { color: colour("text") } },
          tooltip: { mode: "index", intersect: false },
        },
        scales: {
          x: {
            ...axis,
            stacked: true,
            grid: { display: false },
            ticks: { color: colour("text"), maxRotation: 0, autoSkipPadding: 12 },
          },
          y: {
            ...axis,
            stacked: true,
            grid: { color: colour("grid") },
            ticks: { color: colour("text"), precision: figures.unit === "units" ? 0 : undefined },
            title: { display: true, text: figures.unit, color: colour("text") },
          },
        },
      },
    });
  };

  let charts = canvases.map(draw);
  // Light and dark: unfold changes the class of the page.
  new MutationObserver(() => {
    charts.forEach((chart) => chart.destroy());
    charts = canvases.map(draw);
  }).observe(root, { attributes: true, attributeFilter: ["class"] });

  // Who changes a day means these days.
  const period = document.getElementById("id_period");
  for (const name of ["id_since", "id_until"]) {
    document.getElementById(name)?.addEventListener("change", () => {
      period.value = "days";
    });
  }
})();

/* The attendee's pages without this script work too: it counts down, writes times and days in
   the reader's zone, and keeps a second click away.
   Nothing is decided here: the server decides, and the page says what it said last. */
"use strict";

{
  const two = (number) => String(number).padStart(2, "0");

  // <time data-until="ISO 8601">: the time left, by this page's clock corrected by the server's.
  const inUnits = (number, unit) => number.toLocaleString(
    document.documentElement.lang, { style: "unit", unit, unitDisplay: "long" });
  const left = (seconds) => {
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor(seconds / 3600) % 24;
    const minutes = Math.floor(seconds / 60) % 60;
    const clock = `${two(minutes)}:${two(seconds % 60)}`;
    if (days) return `${inUnits(days, "day")} ${inUnits(hours, "hour")}`;
    return hours ? `${hours}:${clock}` : clock;
  };

  const countDown = (skew) => {
    for (const shown of document.querySelectorAll("time[data-until]")) {
      const until = new Date(shown.dataset.until).getTime();
      const seconds = Math.max(0, Math.ceil((until - Date.now() - skew) / 1000));
      const text = left(seconds);
      if (shown.textContent !== text) shown.textContent = text;
      shown.classList.toggle("urgent", seconds < 120);
      if (!seconds && !shown.dataset.over) {
        shown.dataset.over = "1";
        shown.dispatchEvent(new CustomEvent("over", { bubbles: true }));
      }
    }
  };

  // <time data-local="datetime|date|time">: written in UTC by the server, here in the reader's zone.
  const STYLES = {
    datetime: { dateStyle: "medium", timeStyle: "short" },
    date: { dateStyle: "long" },
    time: { timeStyle: "short" },
  };
  const toLocalTime = () => {
    for (const shown of document.querySelectorAll("time[data-local]")) {
      const style = STYLES[shown.dataset.local] || STYLES.datetime;
      const moment = new Date(shown.dateTime);
      shown.title ||= shown.textContent; // in UTC, for who compares
      shown.textContent = moment.toLocaleString(document.documentElement.lang, style);
    }
  };

  // form.slots: in time's order, under the days in UTC by the server, here under the reader's.
  const toLocalDays = () => {
    for (const form of document.querySelectorAll("form.slots")) {
      const before = form.querySelectorAll("fieldset");
      let legend;
      for (const slot of form.querySelectorAll("label")) {
        const day = new Date(slot.querySelector("time").dateTime).toLocaleDateString(
          document.documentElement.lang, { dateStyle: "full" });
        if (legend?.textContent !== day) {
          legend = document.createElement("legend");
          legend.textContent = day;
          const group = document.createElement("fieldset");
          group.append(legend);
          before[0].before(group);
        }
        legend.parentElement.append(slot);
      }
      for (const emptied of before) emptied.remove();
    }
  };

  // A form is sent once: whoever comes back by the browser's Back may send it again.
  const sendOnce = () => {
    document.addEventListener("submit", (event) => {
      if (event.target.dataset.sent) {
        event.preventDefault();
        return;
      }
      event.target.dataset.sent = "1";
      const pressed = event.submitter;
      // Later, since a disabled button isn't sent.
      if (pressed) setTimeout(() => { pressed.disabled = true; });
    });
    addEventListener("pageshow", () => {
      for (const form of document.querySelectorAll("form[data-sent]")) {
        delete form.dataset.sent;
        for (const button of form.querySelectorAll("button")) button.disabled = false;
      }
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const now = document.querySelector("time[data-now]")?.dataset.now; // the server's clock
    const skew = now ? new Date(now).getTime() - Date.now() : 0;
    sendOnce();
    toLocalTime();
    toLocalDays();
    countDown(skew);
    setInterval(countDown, 1000, skew);
  });
}

/* A page that shows something on its way looks again, and is loaded anew once there is news.
   Without this script the page says so itself, or is loaded anew every few seconds. */
"use strict";

{
  const FIRST = 1000; // milliseconds; each pause is half as long again as the one before
  const PATIENCE = 10000;

  let leaving = false;
  addEventListener("beforeunload", () => { leaving = true; }); // a reload would stop Pay, or Cancel
  addEventListener("pageshow", () => { leaving = false; });
  const reload = () => { if (!leaving) location.reload(); };

  // The status now, as JSON from a polled address or as the page itself has it.
  const statusIn = async (answer) => {
    if (answer.headers.get("Content-Type").startsWith("application/json")) return (await answer.json()).status;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.querySelector("[data-watch]")?.dataset.status;
  };

  // Once for the same news: what is polled may be behind the page, for half a minute at worst.
  const isNews = (status, before) => {
    if (status === before) return false;
    const news = `${location.pathname} ${before} ${status}`;
    try {
      if (sessionStorage.getItem("news") === news) return false;
      sessionStorage.setItem("news", news);
    } catch {
      // No storage for this page: it may load itself once too often.
    }
    return true;
  };

  // <… data-watch="address" data-status="as shown here" data-slowest="seconds">
  const watch = (shown) => {
    const address = shown.dataset.watch || location.href;
    // Who looks at the page itself again has seen what it shows: nothing is shown once more.
    const headers = shown.dataset.watch ? {} : { "If-None-Match": '"seen"' };
    const slowest = Number(shown.dataset.slowest) * 1000;
    let pause = FIRST;
    let timer;

    const later = () => {
      clearTimeout(timer);
      if (document.hidden) return;
      timer = setTimeout(look, pause);
      pause = Math.min(pause * 1.5, slowest);
    };
    const look = async () => {
      try {
        const signal = AbortSignal.timeout(PATIENCE);
        const answer = await fetch(address, { cache: "no-store", headers, signal });
        if (answer.status === 404) return; // nothing will ever come of it
        // 403: the address has had its time, and the page has a new one.
        if (answer.status === 403) return reload();
        if (answer.ok && isNews(await statusIn(answer), shown.dataset.status)) return reload();
      } catch {
        // Out of reach just now: a phone in a tunnel, a restart.
      }
      later();
    };
    // Nobody looks at a hidden page; who comes back sees what is true now.
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (!document.hidden) look();
    });
    later();
  };

  for (const shown of document.querySelectorAll("[data-watch]")) watch(shown);
  // page.js counted down to zero; the server's clock may be a moment behind.
  document.addEventListener("over", () => setTimeout(reload, FIRST));
}

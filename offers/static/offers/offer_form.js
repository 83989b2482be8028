/* The form of an offer: only what its type needs is shown, and the card as attendees will see it.
   Without this script everything is shown, and the card is as it was when the page was loaded. */
"use strict";

(() => {
  const NEEDED = {
    ticket_tier: "TICKET_UPGRADE",
    shipping_countries: "MERCHANDISE",
    allows_collection: "MERCHANDISE",
  };
  const PAUSE = 350; // milliseconds without a key before the server is asked

  const showWhatTheTypeNeeds = (form) => {
    const type = form.elements.offer_type;
    if (!type) return; // who only looks has no fields
    const show = () => {
      for (const [name, needs] of Object.entries(NEEDED)) {
        const line = form.querySelector(`.field-line.field-${name}`);
        const input = form.elements[name];
        if (!line || !input) continue;
        // What is wrong must be seen, whatever the type.
        const needed = type.value === needs || line.classList.contains("errors");
        (line.closest(".form-row") || line).hidden = !needed;
        // Not sent while it is hidden: a tier chosen before the type was changed would be refused.
        if (input.type !== "checkbox") input.disabled = !needed;
      }
      for (const hint of form.querySelectorAll("[data-for-type]")) {
        hint.hidden = Boolean(type.value) && hint.dataset.forType !== type.value;
      }
    };
    type.addEventListener("change", show);
    show();
  };

  const keepThePreviewUpToDate = (form, panel) => {
    const frame = panel.querySelector("iframe");
    const said = panel.querySelector("[role=status]");
    const fields = panel.dataset.fields.split(" ");
    let timer = 0;
    let asked = 0;

    const fit = () => {
      const page = frame.contentDocument;
      if (!page || !page.body) return;
      page.documentElement.style.colorScheme = document.documentElement.classList.contains("dark")
        ? "dark"
        : "light";
      frame.style.height = `${Math.ceil(page.body.getBoundingClientRect().bottom) + 2}px`; // and its border
    };
    frame.addEventListener("load", fit);
    new ResizeObserver(fit).observe(panel);
    new MutationObserver(fit).observe(document.documentElement, { attributeFilter: ["class"] });
    if (frame.contentDocument && frame.contentDocument.readyState === "complete") fit();

    if (!form.elements.title) return;

    const refresh = async () => {
      const turn = ++asked;
      const body = new URLSearchParams();
      for (const [name, value] of new FormData(form)) {
        const whole = name.replace(/_[01]$/, ""); // day and time are two inputs
        if (fields.includes(whole) || name === "csrfmiddlewaretoken") body.append(name, value);
      }
      let answer;
      try {
        const response = await fetch(panel.dataset.url, { method: "POST", body });
        if (!response.ok) return;
        answer = await response.json();
      } catch {
        return; // offline, or logged out meanwhile: the last card stays
      }
      if (turn !== asked) return; // a newer one is on its way
      if (frame.srcdoc !== answer.page) frame.srcdoc = answer.page;
      if (said.textContent !== answer.said) said.textContent = answer.said;
      const hint = document.getElementById("price_hint");
      if (hint) hint.textContent = answer.price_hint;
    };
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, PAUSE);
    };
    form.addEventListener("input", soon);
    form.addEventListener("change", soon);
  };

  const leadToTheErrors = (summary) => {
    summary.focus();
    summary.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (!link) return;
      const field = document.getElementById(link.hash.slice(1));
      if (!field) return;
      event.preventDefault();
      // A field with a search box of its own hides the one that the browser knows.
      const box = field.closest(".field-line, .form-row")?.querySelector(".select2-selection");
      const shown = field.classList.contains("select2-hidden-accessible") && box ? box : field;
      shown.scrollIntoView({ block: "center" });
      shown.focus({ preventScroll: true });
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("offer_form");
    if (!form) return;
    showWhatTheTypeNeeds(form);
    const panel = document.querySelector(".offer-preview");
    if (panel) keepThePreviewUpToDate(form, panel);
    const summary = document.getElementById("offer_errors");
    if (summary) leadToTheErrors(summary);
  });
})();

// Sessions and ticket tiers are chosen from those of the event that the form names, if it does yet.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  django.jQuery.ajaxPrefilter((request) => {
    const asked = new URLSearchParams(String(request.data || ""));
    const event = document.querySelector("select[name=event]");
    if (!request.url.includes("/autocomplete/") || asked.get("field_name") === "event") return;
    if (event?.value) request.data += `&event=${encodeURIComponent(event.value)}`;
  });
});

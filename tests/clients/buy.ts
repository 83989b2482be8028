// Buys an offer as a front end would, with types generated from the OpenAPI document.
// node buy.js API SANDBOX: prints what happened, as JSON. tests/test_openapi_clients.py compiles it.

import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Offer = components["schemas"]["Offer"];
type Purchase = components["schemas"]["Purchase"];

const [baseUrl, sandbox] = process.argv.slice(2);
if (!baseUrl || !sandbox) throw new Error("usage: node buy.js API SANDBOX");

const api = createClient<paths>({ baseUrl });

async function logIn(username: string, password: string): Promise<void> {
  const { data, error } = await api.POST("/api/v1/auth/token/", { body: { username, password } });
  if (error) throw new Error(error.errors.map((one) => one.detail).join(" "));
  const bearer: Middleware = {
    onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${data.access}`);
      return request;
    },
  };
  api.use(bearer);
}

async function offers(event: string): Promise<Offer[]> {
  const { data, error } = await api.GET("/api/v1/offers/", { params: { query: { event } } });
  if (error) throw new Error(error.errors[0]?.code);
  return data.results;
}

async function buy(offer: Offer, quantity: number, key: string) {
  const { data, error, response } = await api.POST("/api/v1/purchases/", {
    params: { header: { "Idempotency-Key": key } },
    body: { offer: offer.id, quantity },
  });
  const replayed = response.headers.get("Idempotent-Replayed") === "true";
  return { status: response.status, replayed, purchase: data, code: error?.errors[0]?.code };
}

async function look(id: string): Promise<Purchase> {
  const { data, error } = await api.GET("/api/v1/purchases/{id}/", { params: { path: { id } } });
  if (error) throw new Error(error.errors[0]?.code);
  return data;
}

async function untilPaid(id: string): Promise<Purchase> {
  for (let wait = 50; wait < 10_000; wait *= 2) {
    const purchase = await look(id);
    if (purchase.status === "paid") return purchase;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  throw new Error(`${id} was not paid in time.`);
}

await logIn("attendee1", "attendee1");
const hoodie = (await offers("demo-conf")).find((offer) => offer.title === "Conference hoodie");
if (!hoodie) throw new Error("No hoodie is on sale.");

const key = crypto.randomUUID();
const first = await buy(hoodie, 2, key);
const again = await buy(hoodie, 2, key);
const other = await buy(hoodie, 1, key);
if (!first.purchase) throw new Error(`The purchase was refused: ${first.code}.`);
const { id, checkout_session_id: session, total_price, currency } = first.purchase;
await fetch(`${sandbox}/sandbox/sessions/${session}/pay`, { method: "POST" });
const paid = await untilPaid(id);
// What a purchase became is one of four, told apart by `type`.
const parcel = paid.fulfillment?.type === "PHYSICAL" ? paid.fulfillment.delivery_method : null;

console.log(
  JSON.stringify({
    id,
    price: `${total_price} ${currency}`,
    answers: [first.status, again.status, other.status],
    replayed: [first.replayed, again.replayed],
    same: again.purchase?.id === id,
    code: other.code,
    status: paid.status,
    parcel,
  }),
);

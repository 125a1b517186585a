// What a client of openapi-fetch with the types of openapi-typescript sees; it prints the answers as JSON.

import createClient from "openapi-fetch";
import type { components, paths } from "./gateway.d.ts";

type Payment = components["schemas"]["Payment"];
type PaymentRequest = components["schemas"]["PaymentRequest"];
type Problem = components["schemas"]["Problem"];

/** Return the fields of an answer, read through the client's types. */
function seen({ data, error, response }: { data?: Payment; error?: Problem; response: Response }) {
  if (data !== undefined) {
    const { id, status, response_code, response_summary, authorization_code, card_last4, card_scheme } = data;
    const { expiry_month, expiry_year, currency, amount, reference, metadata, created_at, updated_at } = data;
    const {
      total_authorized, total_captured, total_refunded, total_voided,
      available_to_capture, available_to_void, available_to_refund,
    } = data.balances;
    const balances = {
      total_authorized, total_captured, total_refunded, total_voided,
      available_to_capture, available_to_void, available_to_refund,
    };
    return {
      id, status, response_code, response_summary, authorization_code, card_last4, card_scheme,
      expiry_month, expiry_year, currency, amount, balances, reference, metadata, created_at, updated_at,
      replayed: response.headers.get("Idempotent-Replayed"),
    };
  }
  const { type, title, status, detail, code, instance, errors } = error!;
  return {
    type, title, status, detail, code, instance,
    errors: (errors ?? []).map(({ field, code, message }) => ({ field, code, message })),
  };
}

const { API, LATER_API, API_KEY, UNKNOWN_ID, LATER_IDS } = process.env as Record<string, string>;
const headers = { Authorization: `Bearer ${API_KEY}` };
const gateway = createClient<paths>({ baseUrl: API, headers });
const later = createClient<paths>({ baseUrl: LATER_API, headers });

const pay = async (body: PaymentRequest, header: { "Idempotency-Key"?: string; "X-Request-ID"?: string }) =>
  seen(await gateway.POST("/payments", { params: { header }, body }));
const find = async (client: typeof gateway, payment_id: string) =>
  seen(await client.GET("/payments/{payment_id}", { params: { path: { payment_id } } }));

const payment: PaymentRequest = {
  card_number: "2222405343248877", expiry_month: 12, expiry_year: 2099, currency: "GBP", amount: 1050, cvv: "123",
};
const answers: Record<string, unknown> = {
  paid: await pay(payment, { "Idempotency-Key": "typescript" }),
  replayed: await pay(payment, { "Idempotency-Key": "typescript" }),
  invalid: await pay(
    { ...payment, expiry_month: 13, expiry_year: 2020, amount: 0, cvv: "12" }, { "X-Request-ID": "invalid-1" },
  ),
  unknown: await find(gateway, UNKNOWN_ID),
};
for (const [name, id] of Object.entries(JSON.parse(LATER_IDS) as Record<string, string>)) {
  answers[name] = await find(later, id);
}
console.log(JSON.stringify(answers));

// What a client by @hey-api/openapi-ts sees; it prints the answers as JSON.

import { createClient } from "./gateway-typescript/client/index.js";
import { createPayment, getPayment } from "./gateway-typescript/index.js";
import type { Payment, PaymentRequest, Problem } from "./gateway-typescript/index.js";

/** Return the fields of an answer, read through the client's types. */
function seen({ data, error, response }: { data?: Payment; error?: Problem; response?: Response }) {
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
      replayed: response?.headers.get("Idempotent-Replayed"),
    };
  }
  const { type, title, status, detail, code, instance, errors } = error!;
  return {
    type, title, status, detail, code, instance,
    errors: (errors ?? []).map(({ field, code, message }) => ({ field, code, message })),
  };
}

const { API, LATER_API, API_KEY, UNKNOWN_ID, LATER_IDS } = process.env as Record<string, string>;
const gateway = createClient({ baseUrl: API, auth: API_KEY });
const later = createClient({ baseUrl: LATER_API, auth: API_KEY });

const pay = async (body: PaymentRequest, headers: { "Idempotency-Key"?: string; "X-Request-ID"?: string }) =>
  seen(await createPayment({ client: gateway, headers, body }));
const find = async (client: typeof gateway, payment_id: string) =>
  seen(await getPayment({ client, path: { payment_id } }));

const payment: PaymentRequest = {
  card_number: "2222405343248877", expiry_month: 12, expiry_year: 2099, currency: "GBP", amount: 1050, cvv: "123",
};
const answers: Record<string, unknown> = {
  paid: await pay(payment, { "Idempotency-Key": "hey-api" }),
  replayed: await pay(payment, { "Idempotency-Key": "hey-api" }),
  invalid: await pay(
    { ...payment, expiry_month: 13, expiry_year: 2020, amount: 0, cvv: "12" }, { "X-Request-ID": "invalid-1" },
  ),
  unknown: await find(gateway, UNKNOWN_ID),
};
for (const [name, id] of Object.entries(JSON.parse(LATER_IDS) as Record<string, string>)) {
  answers[name] = await find(later, id);
}
console.log(JSON.stringify(answers));

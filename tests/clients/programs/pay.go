// What a Go client by openapi-generator sees; it prints the answers as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	gateway "shop/gateway-go"
)

type seen map[string]any

func client(baseURL string) *gateway.PaymentsAPIService {
	configuration := gateway.NewConfiguration()
	configuration.Servers = gateway.ServerConfigurations{{URL: baseURL}}
	return gateway.NewAPIClient(configuration).PaymentsAPI
}

// answer returns the fields of an answer, read through the client's types.
func answer(payment *gateway.Payment, response *http.Response, err error) seen {
	if err == nil {
		balances := payment.GetBalances()
		return seen{
			"id":                 payment.GetId(),
			"status":             payment.GetStatus(),
			"response_code":      payment.ResponseCode.Get(),
			"response_summary":   payment.ResponseSummary.Get(),
			"authorization_code": payment.AuthorizationCode.Get(),
			"card_last4":         payment.GetCardLast4(),
			"card_scheme":        payment.CardScheme.Get(),
			"expiry_month":       payment.GetExpiryMonth(),
			"expiry_year":        payment.GetExpiryYear(),
			"currency":           payment.GetCurrency(),
			"amount":             payment.GetAmount(),
			"balances": seen{
				"total_authorized":     balances.GetTotalAuthorized(),
				"total_captured":       balances.GetTotalCaptured(),
				"total_refunded":       balances.GetTotalRefunded(),
				"total_voided":         balances.GetTotalVoided(),
				"available_to_capture": balances.GetAvailableToCapture(),
				"available_to_void":    balances.GetAvailableToVoid(),
				"available_to_refund":  balances.GetAvailableToRefund(),
			},
			"reference":  payment.Reference.Get(),
			"metadata":   payment.GetMetadata(),
			"created_at": payment.GetCreatedAt().Format(time.RFC3339Nano),
			"updated_at": payment.GetUpdatedAt().Format(time.RFC3339Nano),
			"replayed":   response.Header.Get("Idempotent-Replayed"),
		}
	}
	var refused *gateway.GenericOpenAPIError
	if !errors.As(err, &refused) {
		return seen{"raised": err.Error()}
	}
	problem, isProblem := refused.Model().(gateway.Problem)
	if !isProblem {
		return seen{"raised": err.Error()}
	}
	fields := []seen{}
	for _, field := range problem.GetErrors() {
		fields = append(fields, seen{"field": field.GetField(), "code": field.GetCode(), "message": field.GetMessage()})
	}
	return seen{
		"type":     problem.GetType(),
		"title":    problem.GetTitle(),
		"status":   problem.GetStatus(),
		"detail":   problem.GetDetail(),
		"code":     problem.GetCode(),
		"instance": problem.GetInstance(),
		"errors":   fields,
	}
}

func main() {
	ctx := context.WithValue(context.Background(), gateway.ContextAccessToken, os.Getenv("API_KEY"))
	payments, later := client(os.Getenv("API")), client(os.Getenv("LATER_API"))
	payment := gateway.NewPaymentRequest("2222405343248877", 12, 2099, gateway.CURRENCY_GBP, 1050, "123")
	invalid := gateway.NewPaymentRequest("2222405343248877", 13, 2020, gateway.CURRENCY_GBP, 0, "12")
	pay := payments.CreatePayment(ctx).PaymentRequest(*payment).IdempotencyKey("go")
	answers := map[string]seen{
		"paid":    answer(pay.Execute()),
		"unknown": answer(payments.GetPayment(ctx, os.Getenv("UNKNOWN_ID")).Execute()),
		"invalid": answer(payments.CreatePayment(ctx).PaymentRequest(*invalid).XRequestID("invalid-1").Execute()),
	}
	answers["replayed"] = answer(pay.Execute())
	var ids map[string]string
	if err := json.Unmarshal([]byte(os.Getenv("LATER_IDS")), &ids); err != nil {
		panic(err)
	}
	for name, id := range ids {
		answers[name] = answer(later.GetPayment(ctx, id).Execute())
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}

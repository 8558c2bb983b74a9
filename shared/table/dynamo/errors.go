package dynamo

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Codes of the reasons for which DynamoDB cancels a transaction, as the API
// reference of TransactWriteItems lists them.
const (
	conditionFailed = "ConditionalCheckFailed"
	conflict        = "TransactionConflict"
	throughput      = "ProvisionedThroughputExceeded"
	throttled       = "ThrottlingError"
)

// read does a call that changes nothing.
func read(ctx context.Context, call func(context.Context) error) error {
	if err := amazon.Usual().Do(ctx, call); err != nil {
		return amazon.Fault(err, false, kindOf, "the table does not answer")
	}
	return nil
}

// kindOf is the table of DynamoDB's refusals. The driver asks for nothing that a
// table as declared refuses: a missing table or permission, or a request that is not
// valid, is a fault of ours that no caller mends.
func kindOf(string) fault.Kind { return fault.Internal }

// reasons answers how often each code is among the reasons of a cancelled transaction,
// and the writes whose conditions failed.
func reasons(err error) (codes map[string]int, failed []int) {
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) {
		return nil, nil
	}
	codes = map[string]int{}
	for i, reason := range cancelled.CancellationReasons {
		if reason.Code == nil {
			continue
		}
		codes[*reason.Code]++
		if *reason.Code == conditionFailed {
			failed = append(failed, i)
		}
	}
	return codes, failed
}

// judge is the verdict on an attempt of a transaction.
func judge(err error) amazon.Verdict {
	var running *types.TransactionInProgressException
	if errors.As(err, &running) {
		return amazon.Lost // an attempt before, with the same token, is still at work
	}
	codes, failed := reasons(err)
	if len(failed) == 0 && codes[conflict]+codes[throughput]+codes[throttled] > 0 {
		return amazon.Busy
	}
	return amazon.Judge(err)
}

// mine reports whether a cancelled transaction met an item that it has put itself: then an
// attempt before, whose answer was lost, has done all of it.
func mine(err error, token string) bool {
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) {
		return false
	}
	for _, reason := range cancelled.CancellationReasons {
		if writer, ok := reason.Item[writtenBy].(*types.AttributeValueMemberS); ok && writer.Value == token {
			return true
		}
	}
	return false
}

// transactFault is the error of a transaction that was not acknowledged.
func transactFault(err error) error {
	codes, failed := reasons(err)
	var f *amazon.Failure
	switch {
	case len(failed) > 0:
		// Also after a lost attempt this is the truth: had that one been done, DynamoDB
		// would have known the request token.
		return table.Conflicted(failed...)
	case codes[conflict] > 0 && errors.As(err, &f) && !f.Doubt:
		return table.Conflicted()
	}
	return amazon.Fault(err, true, kindOf, "the table did not take the change")
}

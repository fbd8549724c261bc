package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// ListMails implements bffv1.UserServiceHandler.
func (s *Service) ListMails(ctx context.Context, req *bffv1.ListMailsRequest) (*bffv1.ListMailsResponse, error) {
	page, err := callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListMailsResponse, error) {
		return s.mails.ListMails(ctx, &authv1.ListMailsRequest{
			PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Status: authv1.MailStatus(req.GetStatus()),
		})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ListMailsResponse{Mails: mailsOf(page.GetMails()), NextPageToken: page.GetNextPageToken()}, nil
}

// RetryMail implements bffv1.UserServiceHandler.
func (s *Service) RetryMail(ctx context.Context, req *bffv1.RetryMailRequest) (*bffv1.RetryMailResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RetryMailResponse, error) {
		return s.mails.RetryMail(ctx, &authv1.RetryMailRequest{MailId: req.GetMailId(), Origin: s.origin(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RetryMailResponse{Mail: mailOf(response.GetMail())}, nil
}

func mailsOf(mails []*authv1.Mail) []*bffv1.Mail {
	public := make([]*bffv1.Mail, 0, len(mails))
	for _, mail := range mails {
		public = append(public, mailOf(mail))
	}
	return public
}

// mailOf is the mail as the public sees it; the statuses have the same numbers.
func mailOf(mail *authv1.Mail) *bffv1.Mail {
	return &bffv1.Mail{
		Id: mail.GetId(), Kind: mail.GetKind(), Recipient: mail.GetRecipient(), UserId: mail.GetAccountId(),
		Status: bffv1.MailStatus(mail.GetStatus()), Attempts: mail.GetAttempts(), LastError: mail.GetLastError(),
		CreateTime: mail.GetCreateTime(), NextAttemptTime: mail.GetNextAttemptTime(), EndTime: mail.GetEndTime(),
	}
}

package bff

import (
	"context"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
)

// This file has the methods of AccountService and UserService about second factors.

// ListFactors implements bffv1.AccountServiceHandler.
func (s *accountService) ListFactors(ctx context.Context, _ *bffv1.ListFactorsRequest) (*bffv1.ListFactorsResponse, error) {
	found, err := s.listFactors(ctx, caller(ctx).UserID)
	if err != nil {
		return nil, err
	}
	return &bffv1.ListFactorsResponse{
		Totp: totpOf(found.GetTotp()), Passkeys: passkeysOf(found.GetPasskeys()), RecoveryCodesLeft: found.GetRecoveryCodesLeft(), RememberedDevices: devicesOf(found.GetRememberedDevices()),
	}, nil
}

// BeginTOTPEnrolment implements bffv1.AccountServiceHandler.
func (s *accountService) BeginTOTPEnrolment(ctx context.Context, _ *bffv1.BeginTOTPEnrolmentRequest) (*bffv1.BeginTOTPEnrolmentResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.BeginTOTPEnrolmentResponse, error) {
		return s.factors.BeginTOTPEnrolment(ctx, &authv1.BeginTOTPEnrolmentRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.BeginTOTPEnrolmentResponse{
		EnrolmentToken: response.GetEnrolmentToken(), Secret: response.GetSecret(), OtpauthUri: response.GetOtpauthUri(),
		EmailCodeSent: response.GetEmailCodeSent(),
	}, nil
}

// FinishTOTPEnrolment implements bffv1.AccountServiceHandler.
func (s *accountService) FinishTOTPEnrolment(ctx context.Context, req *bffv1.FinishTOTPEnrolmentRequest) (*bffv1.FinishTOTPEnrolmentResponse, error) {
	key := idempotencyKey(ctx)
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.FinishTOTPEnrolmentResponse, error) {
		return s.factors.FinishTOTPEnrolment(repeatable(ctx, key), &authv1.FinishTOTPEnrolmentRequest{
			EnrolmentToken: req.GetEnrolmentToken(), Code: req.GetCode(), EmailCode: req.GetEmailCode(),
			IdempotencyKey: key.GetKey(), Origin: s.clientInfo(ctx),
		})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.FinishTOTPEnrolmentResponse{RecoveryCodes: response.GetRecoveryCodes(), Tokens: s.nextTokens(ctx, response.GetTokens())}, nil
}

// nextTokens returns the next tokens of the caller's session for the message, empty
// ones if it has set them as cookies.
func (s *accountService) nextTokens(ctx context.Context, tokens *authv1.Tokens) *bffv1.Tokens {
	public := tokensOf(tokens)
	if s.cookies.HandOver(ctx, tokens, "") {
		public.AccessToken, public.RefreshToken = "", ""
	}
	return public
}

// RemoveTOTP implements bffv1.AccountServiceHandler.
func (s *accountService) RemoveTOTP(ctx context.Context, _ *bffv1.RemoveTOTPRequest) (*bffv1.RemoveTOTPResponse, error) {
	_, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RemoveTOTPResponse, error) {
		return s.factors.RemoveTOTP(ctx, &authv1.RemoveTOTPRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.RemoveTOTPResponse{}, nil
}

// RegenerateRecoveryCodes implements bffv1.AccountServiceHandler.
func (s *accountService) RegenerateRecoveryCodes(ctx context.Context, _ *bffv1.RegenerateRecoveryCodesRequest) (*bffv1.RegenerateRecoveryCodesResponse, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.RegenerateRecoveryCodesResponse, error) {
		return s.factors.RegenerateRecoveryCodes(ctx, &authv1.RegenerateRecoveryCodesRequest{Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	noStore(ctx)
	return &bffv1.RegenerateRecoveryCodesResponse{RecoveryCodes: response.GetRecoveryCodes()}, nil
}

// ForgetDevice implements bffv1.AccountServiceHandler.
func (s *accountService) ForgetDevice(ctx context.Context, req *bffv1.ForgetDeviceRequest) (*bffv1.ForgetDeviceResponse, error) {
	if _, err := s.forgetDevices(ctx, req.GetDeviceId()); err != nil {
		return nil, err
	}
	return &bffv1.ForgetDeviceResponse{}, nil
}

// ForgetDevices implements bffv1.AccountServiceHandler.
func (s *accountService) ForgetDevices(ctx context.Context, _ *bffv1.ForgetDevicesRequest) (*bffv1.ForgetDevicesResponse, error) {
	forgotten, err := s.forgetDevices(ctx, "")
	if err != nil {
		return nil, err
	}
	return &bffv1.ForgetDevicesResponse{Forgotten: forgotten}, nil
}

// forgetDevices forgets one of the caller's remembered devices, or all for "".
func (s *accountService) forgetDevices(ctx context.Context, device string) (int32, error) {
	response, err := callService(ctx, writeLimit, func(ctx context.Context) (*authv1.ForgetDevicesResponse, error) {
		return s.factors.ForgetDevices(ctx, &authv1.ForgetDevicesRequest{DeviceId: device, Origin: s.clientInfo(ctx)})
	})
	return response.GetForgotten(), err
}

// ListUserFactors implements bffv1.UserServiceHandler.
func (s *userService) ListUserFactors(ctx context.Context, req *bffv1.ListUserFactorsRequest) (*bffv1.ListUserFactorsResponse, error) {
	found, err := s.listFactors(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &bffv1.ListUserFactorsResponse{
		Totp: totpOf(found.GetTotp()), Passkeys: passkeysOf(found.GetPasskeys()), RecoveryCodesLeft: found.GetRecoveryCodesLeft(), RememberedDevices: devicesOf(found.GetRememberedDevices()),
	}, nil
}

// ResetUserFactors implements bffv1.UserServiceHandler.
func (s *userService) ResetUserFactors(ctx context.Context, req *bffv1.ResetUserFactorsRequest) (*bffv1.ResetUserFactorsResponse, error) {
	force := req.ForcePasswordReset == nil || req.GetForcePasswordReset()
	user, missing, err := changed(ctx, s, func(ctx context.Context) (*authv1.ResetFactorsResponse, error) {
		return s.factors.ResetFactors(ctx, &authv1.ResetFactorsRequest{AccountId: req.GetUserId(), ForcePasswordReset: force, Origin: s.clientInfo(ctx)})
	})
	if err != nil {
		return nil, err
	}
	return &bffv1.ResetUserFactorsResponse{User: user, Errors: missing}, nil
}

func (d *directory) listFactors(ctx context.Context, account string) (*authv1.ListFactorsResponse, error) {
	return callService(ctx, readLimit, func(ctx context.Context) (*authv1.ListFactorsResponse, error) {
		return d.factors.ListFactors(ctx, &authv1.ListFactorsRequest{AccountId: account})
	})
}

func totpOf(factor *authv1.TOTPFactor) *bffv1.TOTPFactor {
	if factor == nil {
		return nil
	}
	return &bffv1.TOTPFactor{CreateTime: factor.GetCreateTime(), LastUsedTime: factor.GetLastUsedTime()}
}

func devicesOf(devices []*authv1.RememberedDevice) []*bffv1.RememberedDevice {
	public := make([]*bffv1.RememberedDevice, 0, len(devices))
	for _, device := range devices {
		public = append(public, &bffv1.RememberedDevice{
			DeviceId: device.GetDeviceId(), CreateTime: device.GetCreateTime(), LastUsedTime: device.GetLastUsedTime(),
			ExpireTime: device.GetExpireTime(), UserAgent: device.GetUserAgent(), IpAddress: device.GetIpAddress(),
		})
	}
	return public
}

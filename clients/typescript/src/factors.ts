import type { Client } from "@connectrpc/connect";
import type { AccountService } from "./gen/bff/v1/account_service_pb.js";
import type { BeginTOTPEnrolmentResponse, ListFactorsResponse } from "./gen/bff/v1/factors_pb.js";

/** The second factors of the signed-in person. */
export interface Factors {
  /** Returns the authenticator app, the number of recovery codes and the remembered devices. */
  list(): Promise<ListFactorsResponse>;
  /** Returns a secret for an authenticator app. Show `otpauthUri` as a QR code, drawn in the page. */
  beginTotp(): Promise<BeginTOTPEnrolmentResponse>;
  /** Enrols the app by a code that it shows, and returns ten recovery codes. The session is at level 2 after it. */
  finishTotp(enrolment: { enrolmentToken: string; code: string; emailCode?: string }): Promise<string[]>;
  /** Removes the authenticator app. */
  removeTotp(): Promise<void>;
  /** Replaces the recovery codes and returns the new ones. */
  regenerateRecoveryCodes(): Promise<string[]>;
  /** Makes a device need the second factor again. */
  forgetDevice(deviceId: string): Promise<void>;
  /** Makes all devices need the second factor again, and returns how many there were. */
  forgetDevices(): Promise<number>;
}

export function factorsOf(account: Client<typeof AccountService>): Factors {
  return {
    list: () => account.listFactors({}),
    beginTotp: () => account.beginTOTPEnrolment({}),
    finishTotp: async (enrolment) => (await account.finishTOTPEnrolment(enrolment)).recoveryCodes,
    removeTotp: async () => void (await account.removeTOTP({})),
    regenerateRecoveryCodes: async () => (await account.regenerateRecoveryCodes({})).recoveryCodes,
    forgetDevice: async (deviceId) => void (await account.forgetDevice({ deviceId })),
    forgetDevices: async () => (await account.forgetDevices({})).forgotten,
  };
}

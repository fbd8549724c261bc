/** The texts of the sign-in form. */
export interface SignInTexts {
  readonly email: string;
  readonly password: string;
  readonly signIn: string;
  readonly withPasskey: string;
  /** What the second step asks for. */
  readonly totp: string;
  readonly passkey: string;
  readonly recoveryCode: string;
  /** The buttons that change to another second proof. */
  readonly useTotp: string;
  readonly usePasskey: string;
  readonly useRecoveryCode: string;
  readonly rememberDevice: string;
  readonly continue: string;
  readonly startAgain: string;
  /** A second factor is owed, and this browser or this version of the form can give none. */
  readonly noMethod: string;
  /** The browser's dialog for passkeys failed. */
  readonly passkeyFailed: string;
}

/** The English texts, which the form uses where it gets no others. */
export const signInTexts: SignInTexts = {
  email: "Email",
  password: "Password",
  signIn: "Sign in",
  withPasskey: "Sign in with a passkey",
  totp: "Code of your authenticator app",
  passkey: "Confirm with your passkey",
  recoveryCode: "Recovery code",
  useTotp: "Use your authenticator app",
  usePasskey: "Use a passkey",
  useRecoveryCode: "Use a recovery code",
  rememberDevice: "Ask for no code on this device for a while",
  continue: "Continue",
  startAgain: "Start again",
  noMethod: "This browser cannot give your second factor. Sign in with another browser.",
  passkeyFailed: "The passkey could not be used. Try again, or sign in another way.",
};

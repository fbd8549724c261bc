import type { Client } from "@connectrpc/connect";
import type { AuthService, CompleteLoginResponse } from "./gen/bff/v1/auth_service_pb.js";
import type { Challenge } from "./gen/bff/v1/types_pb.js";

/** Signs in with a code that is mailed. */
export interface SignInCode {
  /** Mails a code. The answer is the same whether or not the email has an account. */
  request(email: string): Promise<SignInCodeRequest>;
  /** Signs in with a code and the challenge of its request, for instance after the page was loaded again. */
  complete(challengeToken: string, code: string): Promise<CompleteLoginResponse>;
}

/** A mailed code that is awaited. */
export interface SignInCodeRequest {
  /** Its token completes the sign-in. Keep it in this browser: with the code it signs in. */
  readonly challenge: Challenge;
  /** Signs in with the code of the mail. The answer has a challenge if the person has a second factor. */
  complete(code: string): Promise<CompleteLoginResponse>;
}

export function signInCodeOf(auth: Client<typeof AuthService>): SignInCode {
  const complete = (challengeToken: string, code: string) => auth.completeLogin({ challengeToken, proof: { case: "emailCode", value: code } });
  return {
    complete,
    request: async (email) => {
      const { challenge } = await auth.requestSignInCode({ email });
      if (!challenge) throw new Error("the gateway returned no challenge");
      return { challenge, complete: (code) => complete(challenge.token, code) };
    },
  };
}

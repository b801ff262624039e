/** Signs in at the web app's Better Auth, and keeps the session token in the phone's key store. */

import * as SecureStore from "expo-secure-store";

const KEY = "session";

/** Sign in with email and password. Throws with the server's message when it refuses. */
export async function signIn(app: string, email: string, password: string): Promise<void> {
  const response = await fetch(`${app}/api/auth/sign-in/email`, {
    method: "POST",
    // Better Auth refuses a request with a cookie and without an origin; phones keep cookies by themselves.
    headers: { "content-type": "application/json", origin: app },
    body: JSON.stringify({ email, password }),
  });
  const answer: unknown = await response.json().catch(() => null);
  const { token, message } = (answer ?? {}) as { token?: unknown; message?: unknown };
  if (!response.ok || typeof token !== "string") {
    throw new Error(typeof message === "string" ? message : `${app} answered ${response.status}`);
  }
  await SecureStore.setItemAsync(KEY, token);
}

/** The kept session token, or null when nobody is signed in. */
export const savedToken = (): Promise<string | null> => SecureStore.getItemAsync(KEY);

/** Forget the session on this phone. */
export const signOut = (): Promise<void> => SecureStore.deleteItemAsync(KEY);

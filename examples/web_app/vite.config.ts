import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The client's packages are linked from this repository; React must not be there twice.
  resolve: { dedupe: ["react", "react-dom"] },
});

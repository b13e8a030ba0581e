"use client";
import * as auth from "next-auth/react";
import { makePages } from "../client";

const pages = makePages(auth);
export const Home = pages.Home;
export const LoginForm = pages.LoginForm;
export const Required = pages.Required;

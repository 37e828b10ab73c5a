"""WHAT must hold: controls, profiles, policies and waivers, and the code that renders, checks and judges by them."""

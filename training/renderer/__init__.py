"""Makes ground, views and whole flights: procedural or real places, light, season, weather, lens and bag."""
